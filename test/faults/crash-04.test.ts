import { testHouse } from './crash/house-test.ts';

testHouse(4);
